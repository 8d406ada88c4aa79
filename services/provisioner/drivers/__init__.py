"""What the provisioner does to the machine: thin verbs over programs; they decide nothing."""
