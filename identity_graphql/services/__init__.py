"""What can be done, in the words of the field: I/O around a pure decision of the domain."""
