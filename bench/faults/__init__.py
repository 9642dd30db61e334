"""What clients see while a service is killed, frozen, cut off or has no room, and whether anything is lost."""
