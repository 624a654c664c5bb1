//! Transactional objects: objset, dnode, zap, sa, bpobj, space map, intent log
