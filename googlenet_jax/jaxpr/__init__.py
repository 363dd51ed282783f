"""Networks of JAX read by the program that JAX makes of them."""
