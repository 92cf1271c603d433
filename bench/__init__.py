"""What hoody is measured by: works, rivals, audiences, targets. Not part of the package."""
