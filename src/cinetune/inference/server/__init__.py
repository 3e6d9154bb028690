"""Replies of any model behind a server that speaks OpenAI's protocol."""
