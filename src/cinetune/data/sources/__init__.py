"""Questions and videos as others have them: files in each format, the hub, folders that programs have filled."""
