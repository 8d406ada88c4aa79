"""What the provisioner does to the machine: thin verbs over programs and files; they decide nothing."""
