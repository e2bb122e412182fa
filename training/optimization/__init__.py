"""How weights change: optimizers, learning rate schedules and number formats; imports the configuration."""
