"""The arrays behind the ROIs."""
