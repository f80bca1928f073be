"""Real servers, and twistd as a child process."""
