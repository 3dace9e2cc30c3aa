"""What the tests share: databases, servers, clients."""
