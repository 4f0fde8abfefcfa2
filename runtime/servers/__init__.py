"""Parameters that live at servers: the state machines, their simulator, and what carries them between processes."""
