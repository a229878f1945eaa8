"""Base models that have a name here: where they come from, where they are kept, and how they are got."""
