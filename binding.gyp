{
  # For tools that know only node-gyp: the same build as `make native`, which cmake-js drives.
  'targets': [
    {
      'target_name': 'agentrm',
      'type': 'none',
      'actions': [
        {
          'action_name': 'make_native',
          'inputs': ['CMakeLists.txt'],
          'outputs': ['dist/agentrm.node'],
          'action': ['make', '-C', '<(module_root_dir)', 'native'],
        },
      ],
    },
  ],
}
