"""A video file as it is coded: its timeline, where decoding may begin, its shots."""
