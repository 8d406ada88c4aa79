"""What every service is joined to the others with: server, channels, errors, identity, configuration, loops."""
