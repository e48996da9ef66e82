"""Training: data, losses, and the three stages (autoencoder, quantizer, decoder)."""
