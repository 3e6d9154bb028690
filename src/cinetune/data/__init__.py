"""Questions and clips in: question files, downloads, subtitles."""
