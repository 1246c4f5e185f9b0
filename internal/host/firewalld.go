package host

func (c *collection) readFirewalld() {}
func (c *collection) readFiles()     {}
