"""The commands: each asks the parts and renders what they say, as text or JSON."""
