"""The ground: values in, values out."""
