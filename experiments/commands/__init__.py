"""The commands of `optimizer`, one module each, loaded when they are asked for."""
