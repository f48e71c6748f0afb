"""Problems that a model writes itself, to practise on."""
