"""Workers as Deployments of Kubernetes: how many are wanted, who says so, and why some are not there."""
