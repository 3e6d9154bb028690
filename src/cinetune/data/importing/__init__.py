"""Own videos and questions: rows in a plain format or a published layout, checked, split and put in a data folder."""
