"""`blockyard report`: a run as one HTML file to send to a colleague."""
