"""Everything around the network that is neither definition nor framework: command line, data, running, comparing."""
