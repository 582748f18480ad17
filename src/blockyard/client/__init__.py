"""The blocking Client for a user's own worker loop, and control calls over HTTP."""
