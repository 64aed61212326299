"""The command line: one verb a file. Each parses, calls the library and prints; torch loads only inside."""
