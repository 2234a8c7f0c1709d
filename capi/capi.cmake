# liblonghold, the C library: one header, and no other symbol than those of the header.
add_library(longhold_c SHARED capi/longhold.cc)
set_target_properties(longhold_c PROPERTIES OUTPUT_NAME longhold EXPORT_NAME longhold VERSION ${PROJECT_VERSION} SOVERSION 1
  PUBLIC_HEADER ${CMAKE_CURRENT_LIST_DIR}/longhold.h LINK_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/longhold.map)
target_link_libraries(longhold_c PRIVATE lh_model)
target_link_options(longhold_c PRIVATE -Wl,--version-script=${CMAKE_CURRENT_LIST_DIR}/longhold.map -Wl,--no-undefined)
target_include_directories(longhold_c INTERFACE $<INSTALL_INTERFACE:include>)

# For pkg-config, and for find_package(longhold) with the target longhold::longhold. Both find the library from where they
# are, so that an installation can be moved.
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/capi/longhold.pc @ONLY CONTENT [[
prefix=${pcfiledir}/../..
Name: longhold
Description: memory for language models: stores keys and values of texts, and recalls them
Version: @PROJECT_VERSION@
Cflags: -I${prefix}/include
Libs: -L${prefix}/lib -llonghold
]])
include(CMakePackageConfigHelpers)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/capi/longholdConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(TARGETS longhold_c EXPORT longholdConfig COMPONENT capi LIBRARY DESTINATION lib PUBLIC_HEADER DESTINATION include)
install(EXPORT longholdConfig NAMESPACE longhold:: DESTINATION lib/cmake/longhold COMPONENT capi)
install(FILES ${CMAKE_BINARY_DIR}/capi/longholdConfigVersion.cmake DESTINATION lib/cmake/longhold COMPONENT capi)
install(FILES ${CMAKE_BINARY_DIR}/capi/longhold.pc DESTINATION lib/pkgconfig COMPONENT capi)
