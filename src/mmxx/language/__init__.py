"""Language: models of text, what they learn in context, and how they carry bias."""
