"""Read and write the weights of networks, and transfer them between networks."""
