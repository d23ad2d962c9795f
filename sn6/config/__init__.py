"""The config of a run: its types, its composition from conf/, and what the comments of conf/ declare."""
