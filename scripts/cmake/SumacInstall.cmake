# cmake --install and find_package(Sumac).
include(CMakePackageConfigHelpers)
set(SUMAC_CONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/Sumac)
install(EXPORT SumacTargets NAMESPACE sumac:: DESTINATION ${SUMAC_CONFIG_DIR})
configure_package_config_file(scripts/cmake/SumacConfig.cmake.in ${CMAKE_BINARY_DIR}/SumacConfig.cmake
  INSTALL_DESTINATION ${SUMAC_CONFIG_DIR})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/SumacConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/SumacConfig.cmake ${CMAKE_BINARY_DIR}/SumacConfigVersion.cmake
  scripts/cmake/SumacDependencies.cmake DESTINATION ${SUMAC_CONFIG_DIR})
install(DIRECTORY verbs transport runtime collectives DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/sumac
  FILES_MATCHING PATTERN "*.h" PATTERN "*_test*.h" EXCLUDE PATTERN "fake_*.h" EXCLUDE)
