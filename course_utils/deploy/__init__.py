"""What a lesson needs to bring a model to users: files to copy, a server to start, what Node, Triton and a phone say."""
