"""BMC: power, boot device, light, network, inventory and sensors of machines, asked of their management controllers."""
