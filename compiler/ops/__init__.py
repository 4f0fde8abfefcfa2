"""The op families. An op's lowering, gradient and checks stand together in its family's file."""
