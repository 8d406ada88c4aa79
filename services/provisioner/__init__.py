"""The provisioner service: image recipes, image builds and the cloud-init seed of a VM."""
