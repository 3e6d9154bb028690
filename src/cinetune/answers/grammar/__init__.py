"""What the lenient parser reads in a reply: mentions of options, and the statements made about them."""
