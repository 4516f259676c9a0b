"""One fit, validation, test or prediction, from words and files: LightningCLI with this library's manners."""
