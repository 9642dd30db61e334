"""How a service description becomes something that runs: the interface (`platform`), and each platform."""
