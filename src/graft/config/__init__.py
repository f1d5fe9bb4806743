"""Configuration: composed by Hydra, checked against signatures before anything is built."""
