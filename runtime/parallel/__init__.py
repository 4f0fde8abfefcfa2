"""Models cut among workers: who meets whom, what travels between the parts, and in which order a step runs."""
