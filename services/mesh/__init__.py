"""What joins the services: server, channels, errors, identity, configuration, loops."""
