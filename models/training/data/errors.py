"""What the data side of a training raises; :class:`models.training.config.ConfigError` is for the configuration."""


class DatasetError(Exception):
    """A list file, folder, archive, picture or feature file cannot be used; the text names it and its line."""
