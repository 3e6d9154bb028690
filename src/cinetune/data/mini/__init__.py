"""CinePile-mini: short films with CinePile's questions, made by this code from a seed.

`story` invents, `draw` shows, `talk` speaks, `ask` questions; `dataset` writes it all in CinePile's form.
"""
