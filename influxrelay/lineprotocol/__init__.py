"""Line protocol: bytes in, bytes out, no reactor."""
