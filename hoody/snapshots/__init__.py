"""What a container's disk held at one instant: told, compared, and known by its digest."""
