"""From a model's words to an answer: the published parser, a lenient one, readable text."""
