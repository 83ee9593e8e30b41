"""Figures: how long a picture and each component take, with the device they were taken on."""
