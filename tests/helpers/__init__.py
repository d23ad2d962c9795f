"""What several tests share: archives made by hand, commands in this process or in others, stand-in servers."""
