"""What hoody is measured by: works, rivals, targets. Not part of the package."""
